#!/bin/bash
# cluster/local.yaml on this machine alone: a head and a worker by SSH on 127.0.0.2 and 127.0.0.3.
#
#   cluster/loopback.sh up                # two OpenSSH servers, and what local.yaml becomes for them
#   ray up -y ~/.cache/rl-mba-loopback/cluster.yaml      # then ray submit, ray rsync-down, ray down, as in local.yaml
#   cluster/loopback.sh down              # ends every process that was started over them, and deletes the folder
#
# RL_MBA_LOOPBACK names another folder, RL_MBA_LOOPBACK_PORT the first of three ports (26322).
# Needs Linux, Debian's openssh-server and rsync, .venv, and root or user namespaces: what is started over such a server
# has a home, a /tmp/ray and a process table of its own, so that its `ray stop` meets no other Ray of this machine.
set -euo pipefail

folder=${RL_MBA_LOOPBACK:-$HOME/.cache/rl-mba-loopback}
port=${RL_MBA_LOOPBACK_PORT:-26322}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$checkout/.venv/bin/python
sshd=/usr/sbin/sshd
head=127.0.0.2
worker=127.0.0.3

fail() {
    echo "error: $*" >&2
    exit 2
}

up() {
    local tool address
    for tool in "$sshd" "$(command -v rsync || echo rsync)" "$(command -v ssh || echo ssh)" "$python"; do
        [ -x "$tool" ] || fail "$tool is missing; install openssh-server, openssh-client and rsync, and run make install."
    done
    [ ! -e "$folder" ] || fail "$folder exists; run $0 down, or name another folder by RL_MBA_LOOPBACK."
    mkdir -p "$folder"/{home,data} /tmp/ray
    chmod 700 "$folder"
    touch "$folder/made-by-loopback"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/host_key"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
    cp "$folder/key.pub" "$folder/authorized_keys"
    # Ray cannot be told a port.
    printf '#!/bin/bash\nexec 3<>"/dev/tcp/$1/%s"\ncat <&3 &\nexec cat >&3\n' "$port" > "$folder/connect"
    chmod 700 "$folder/connect"
    environment
    for address in "$head" "$worker"; do
        serve "$address"
    done
    echo "$folder/cluster.yaml"
}

# The machines' Python: the packages of .venv without the checkout; set-up adds the copy that ray up makes of it.
environment() {
    local purelib='import sysconfig; print(sysconfig.get_path("purelib"))' site
    "$python" -m venv --without-pip "$folder/env"
    site=$("$folder/env/bin/python" -c "$purelib")
    "$python" -c "$purelib" > "$site/packages.pth"
    printf '#!/bin/sh\nexec %s -m ray.scripts.scripts "$@"\n' "$folder/env/bin/python" > "$folder/env/bin/ray"
    # On the head Ray drops the connecting command, and ssh takes the ~ before the key for the real home.
    printf '#!/bin/sh\nexec %s -p %s -i %s "$@"\n' "$(command -v ssh)" "$port" "$folder/key" > "$folder/env/bin/ssh"
    chmod 700 "$folder"/env/bin/{ray,ssh}
    "$python" - "$checkout/cluster/local.yaml" "$folder" "$port" "$(id -un)" "$site" > "$folder/cluster.yaml" <<END
import sys
import yaml

source, folder, port, user, site = sys.argv[1:]
with open(source) as stream:
    config = yaml.safe_load(stream)
config["cluster_name"] = f"rl-mba-loopback-{port}"
config["min_workers"] = config["max_workers"] = 1
config["provider"] |= {"head_ip": "$head", "worker_ips": ["$worker"]}
config["auth"] = {"ssh_user": user, "ssh_private_key": f"{folder}/key", "ssh_proxy_command": f"{folder}/connect %h"}
config["file_mounts"] = {f"{folder}/home/rl-mba": "."}
config["setup_commands"] = [f"echo {folder}/home/rl-mba > {site}/rl_mba.pth"]
ports = "--min-worker-port=0 --max-worker-port=0 --num-cpus=2"
own = {"head": f"--node-ip-address=$head --ray-client-server-port={int(port) + 2} --include-dashboard=false",
       "worker": "--node-ip-address=$worker"}
for kind, flags in own.items():
    name = f"{kind}_start_ray_commands"
    stop, start = config[name]
    start = start.replace(" --object-manager-port=8076", "").replace("6379", str(int(port) + 1))
    config[name] = [stop, f"{start} {flags} {ports}"]
yaml.safe_dump(config, sys.stdout, sort_keys=False, width=1000)
END
}

serve() {
    local own=() here=$folder/$1
    mkdir -p "$here"/{home,ray}
    printf 'export PATH=%q:$PATH RAY_AUTH_MODE=%q\n' "$folder/env/bin" "${RAY_AUTH_MODE:-disabled}" \
        | tee "$here/home/.bashrc" > "$here/home/.profile"
    cat > "$here/sshd_config" <<END
Port $port
ListenAddress $1
HostKey $folder/host_key
AuthorizedKeysFile $folder/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AllowUsers $(id -un)
SetEnv HOME=$folder/home
END
    if [ "$(id -u)" = 0 ]; then
        mkdir -p /run/sshd
    else
        own=(--user --map-current-user --keep-caps)
    fi
    setsid unshare "${own[@]}" --pid --mount --fork --kill-child --mount-proc bash -c \
        'mount --bind "$0/ray" /tmp/ray && mount --bind "$0/home" "$1" && exec "$2" -D -f "$0/sshd_config" -E "$0/log"' \
        "$here" "$folder/home" "$sshd" < /dev/null > "$here/out" 2>&1 &
    echo $! > "$here/pid"
    for _ in $(seq 50); do
        sleep 0.1
        kill -0 "$(cat "$here/pid")" 2> /dev/null || break
        (exec 3<> "/dev/tcp/$1/$port") 2> /dev/null && return
    done
    cat "$here/out" "$here/log" >&2 || true
    end
    fail "no SSH server came up on $1:$port."
}

end() {
    local file pid
    for file in "$folder"/*/pid; do
        pid=$(cat "$file" 2> /dev/null || true)
        if [ -n "$pid" ] && tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null | grep -qF "$folder"; then
            kill -KILL "$pid"
            while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
        fi
    done
    rm -rf "$folder" "/tmp/ray/cluster-rl-mba-loopback-$port".{state,lock}
}

down() {
    [ -e "$folder" ] || fail "$folder does not exist; nothing is up there."
    [ -e "$folder/made-by-loopback" ] || fail "$folder was not made by $0 up, and is left alone."
    end
}

case "${1:-}" in
    up | down) "$1" ;;
    *) fail "say $0 up, or $0 down." ;;
esac
