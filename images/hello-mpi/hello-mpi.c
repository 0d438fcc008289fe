/* Says who each rank is and proves that the ranks can talk: one line per rank, for machines.
 *
 * Every rank adds its number to a sum over all ranks (MPI_Allreduce). The sum of 0 to size-1 is
 * known beforehand, so a wrong result, or ranks that do not see each other, can be told from a
 * right one.
 */
#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DONE = 0, FAILED = 1, USAGE = 2, WORD = 64, PATH_LENGTH = 4096, LINE = 8192 };

static const char HELP[] =
    "usage: hello-mpi [--ranks N]\n"
    "\n"
    "Each rank prints one line:\n"
    "  rank=0 size=4 host=NAME sum=6 expected=6 os=debian-12 container=/path/of.sif\n"
    "sum is an MPI_Allreduce over the numbers of the ranks; os comes from /etc/os-release,\n"
    "container from APPTAINER_CONTAINER (none outside Apptainer).\n"
    "\n"
    "  --ranks N  fail unless exactly N ranks see each other\n"
    "  --help     print this and exit\n"
    "\n"
    "Ends with 0 when all is right, 1 for a wrong sum or number of ranks, 2 for wrong usage.\n";

/* Return the number of ranks asked for; 0: any; -1: cannot be read. */
static long ranks_asked_for(int argc, char **argv) {
    if (argc == 1) {
        return 0;
    }
    if (argc != 3 || strcmp(argv[1], "--ranks") != 0) {
        return -1;
    }
    char *end = NULL;
    errno = 0;
    long ranks = strtol(argv[2], &end, 10);
    return errno != 0 || end == argv[2] || *end != '\0' || ranks < 1 ? -1 : ranks;
}

/* Copy the value of NAME= in /etc/os-release, without quotes; "unknown" where there is none. */
static void os_release(const char *name, char *value) {
    char line[LINE];
    size_t length = strlen(name);
    FILE *file = fopen("/etc/os-release", "r");
    snprintf(value, WORD, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            char *start = line + length + 1 + strspn(line + length + 1, "\"'");
            start[strcspn(start, "\"'\n")] = '\0';
            snprintf(value, WORD, "%.*s", WORD - 1, start);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* One write for a whole line: lines of several ranks do not mix. */
static int print_line(int rank, int size, long sum, long expected) {
    char host[PATH_LENGTH], id[WORD], version[WORD], line[LINE];
    const char *container = getenv("APPTAINER_CONTAINER");
    if (gethostname(host, sizeof host) != 0) {
        return FAILED;
    }
    os_release("ID", id);
    os_release("VERSION_ID", version);
    int length = snprintf(line, sizeof line,
                          "rank=%d size=%d host=%s sum=%ld expected=%ld os=%s-%s container=%s\n",
                          rank, size, host, sum, expected, id, version,
                          container != NULL && *container != '\0' ? container : "none");
    return length < (int)sizeof line && write(STDOUT_FILENO, line, length) == length ? DONE
                                                                                     : FAILED;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        return fputs(HELP, stdout) < 0 ? FAILED : DONE;
    }
    long wanted = ranks_asked_for(argc, argv);
    if (wanted < 0) {
        fputs(HELP, stderr);
        return USAGE;
    }
    int rank = 0, size = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    long number = rank, sum = -1, expected = (long)size * (size - 1) / 2;
    MPI_Allreduce(&number, &sum, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    int status = print_line(rank, size, sum, expected);
    if (sum != expected) {
        fprintf(stderr, "hello-mpi: rank %d: the sum is %ld, not %ld\n", rank, sum, expected);
        status = FAILED;
    }
    if (wanted != 0 && wanted != size) {
        fprintf(stderr, "hello-mpi: rank %d sees %d ranks, not %ld\n", rank, size, wanted);
        status = FAILED;
    }
    MPI_Finalize();
    return status;
}
