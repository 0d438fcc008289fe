"""Dockerfiles that several modules of tests build."""

from __future__ import annotations

TRIXIE = "sifline/debian-trixie"
# No shell, no /etc: a program, its library and its loader.
TINY = f"""
FROM {TRIXIE} AS base
FROM scratch
COPY --from=base /usr/bin/true /usr/bin/
COPY --from=base /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/
COPY --from=base /usr/lib64/ld-linux-x86-64.so.2 /lib64/
LABEL org.example.note="two words"
"""
# A shell and a few programs: as much as a definition file's commands need.
SHELL = f"""
FROM docker.io/{TRIXIE} AS base
FROM scratch
COPY --from=base /usr/bin/cat /usr/bin/chown /usr/bin/id /usr/bin/stat /usr/bin/true /usr/bin/
COPY --from=base /usr/bin/dash /bin/sh
COPY --from=base /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/libpcre2-8.so.0 \
    /usr/lib/x86_64-linux-gnu/libselinux.so.1 /usr/lib/x86_64-linux-gnu/
COPY --from=base /usr/lib64/ld-linux-x86-64.so.2 /lib64/
"""
EMPTY = "FROM scratch\nLABEL a=b\nCOPY Dockerfile /file\n"
PYTHON = r"""
FROM sifline/debian-bookworm
RUN --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt,mode=0444 \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-packaging python3-six
RUN mkdir --parents /site/Some_Thing-1.0.dist-info /site/old.egg-info \
    && printf 'Name: Some_Thing\nVersion: 1.0\nLicense: MIT\n' \
        > /site/Some_Thing-1.0.dist-info/METADATA \
    && printf 'Name: old\nVersion: 2\n' > /site/old.egg-info/PKG-INFO
ENV PYTHONPATH=/site
ENV SETTING="one 'and' \"two\""
LABEL org.example.kept="yes" org.example.gone="soon"
CMD ["python3"]
"""
