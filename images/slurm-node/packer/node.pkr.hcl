# The node image with Packer: the same roles on the same machine as in the Dockerfile, here with
# Packer's docker builder. For virtual machines, replace the source by qemu's or your cloud's.
#
#   docker build --target machine --tag sifline/machine images/slurm-node
#   packer build images/slurm-node/packer/node.pkr.hcl

variable "base" {
  type        = string
  default     = "sifline/machine"
  description = "An image with an SSH server, Python and sudo."
}

variable "tag" {
  type        = string
  default     = "sifline/slurm-node-packer"
  description = "The name of the image that is made."
}

variable "playbooks" {
  type        = string
  default     = "ansible"
  description = "The folder of the playbooks."
}

source "docker" "node" {
  image  = var.base
  pull   = false
  commit = true
  # Whoever builds it may not start systemd: nothing runs in it but the playbook.
  run_command = ["--detach", "--interactive", "--tty", "--entrypoint=/bin/sh", "--", "{{ .Image }}"]
  changes     = ["ENTRYPOINT []", "CMD [\"/usr/local/sbin/entrypoint\"]"]
}

build {
  sources = ["source.docker.node"]

  provisioner "ansible" {
    playbook_file = "${var.playbooks}/node-image.yml"
    user          = "root"
    ansible_env_vars = [
      "ANSIBLE_CONFIG=${var.playbooks}/ansible.cfg",
      "ANSIBLE_HOST_KEY_CHECKING=False",
      "LC_ALL=C.UTF-8",
    ]
    extra_arguments = [
      "--extra-vars", "ansible_python_interpreter=/usr/bin/python3",
      # Packer's own SSH server, through which Ansible reaches the container, has an RSA key.
      "--ssh-extra-args", "-o HostKeyAlgorithms=+ssh-rsa -o PubkeyAcceptedAlgorithms=+ssh-rsa",
    ]
  }

  # What belongs to one machine, and what the provisioning left.
  provisioner "shell" {
    inline = [
      "rm -rf /root/.ansible /var/lib/apt/lists/* /tmp/* /etc/ssh/ssh_host_*",
      "truncate --size=0 /etc/machine-id",
    ]
  }

  post-processor "docker-tag" {
    repository = var.tag
  }
}
