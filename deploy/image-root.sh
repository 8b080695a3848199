#!/usr/bin/env bash
# Fills an empty folder with all that the image holds, from a Debian system that has it installed:
#
#   deploy/image-root.sh FOLDER DIST [SYSTEM]
#
# DIST is what the build made: the executable, its addon, the licences of what is in them. With them
# come the tools that the agent runs, the libraries they load, and nothing else: no shell, no package
# manager. What is not installed fails here, not on a node. SYSTEM is the root of that Debian system, by
# default this one; nothing of it is run, so it may be one of another architecture.
set -euo pipefail
umask 022

(($# == 2 || $# == 3)) || {
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
root=$(readlink -f "$1")
system=$(readlink -f "${3:-/}")
readonly root dist=$2 system=${system%/}

# `sleep` keeps the pod there that has opened its node.
readonly tools=(
  ip sleep
  iptables-nft-save iptables-nft-restore
  iptables-legacy-save iptables-legacy-restore
)

fail() {
  printf 'image-root: %s\n' "$*" >&2
  exit 1
}

# What `readelf` names is looked for where the loader does; what a library needs is needed too.
copy_libraries_of() {
  local name
  while read -r name; do
    [[ -z ${libraries[${name##*/}]:-} ]] || continue
    libraries[${name##*/}]=copied
    copy_library "$name" "$1"
  done < <(LC_ALL=C readelf -d -l -W "$1" |
    sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p; s/.*program interpreter: \(.*\)\]/\1/p')
}
declare -A libraries=()

copy_library() {
  local path folder
  for folder in "/lib/$triplet" "/usr/lib/$triplet" ''; do
    path=$folder/${1#/}
    if [[ -e $system$path ]]; then
      copied+=("$path")
      install -D -m 755 "$system$path" "$root$path"
      copy_libraries_of "$system$path"
      return
    fi
  done
  fail "$2 lacks a library: $1"
}

# What of the system is in the image.
copied=()

# The copyright files of the packages that those files are of, and the licences these refer to.
copy_terms() {
  local paths=() path package
  for path in "${copied[@]}"; do
    # The package has it in /lib or in /usr/lib, whatever the loader says.
    paths+=("$path" "$(resolve "$path")" "/usr$path" "${path#/usr}")
  done
  # Lines are `package:arch, package: path`, or tell of a diversion.
  while read -r package; do
    install -D -m 644 "$system/usr/share/doc/${package%:*}/copyright" \
      "$root/usr/share/doc/${package%:*}/copyright"
    # Where scanners for vulnerabilities look in an image without a package manager.
    install -d "$root/var/lib/dpkg/status.d"
    query -s "$package" >"$root/var/lib/dpkg/status.d/${package%:*}"
  done < <({ query -S "${paths[@]}" 2>/dev/null || true; } |
    sed '/^diversion by /d; s/: .*//; s/, /\n/g' | sort -u)
  install -d "$root/usr/share/common-licenses"
  cp -P "$system"/usr/share/common-licenses/* "$root/usr/share/common-licenses"
}

query() { dpkg-query --admindir="$system/var/lib/dpkg" "$@"; }

# The path in the system that links lead to.
resolve() {
  local path
  path=$(readlink -f "$system$1")
  [[ $path == "$system"/* ]] || fail "$1 leads out of $system"
  printf '%s\n' "${path#"$system"}"
}

# iptables loads a module for every match and target that a rule names, also in rules of others.
modules=$(find "$system/usr/lib" -path '*/xtables/libxt_tcp.so' -print -quit)
[[ -n $modules ]] || fail 'the modules of iptables are not where they are looked for'
modules=${modules#"$system"} modules=${modules%/*}
triplet=$(basename "${modules%/*}")

mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp}
chmod 1777 "$root/tmp"
install -m 755 "$dist/nmi" "$root/bin/nmi"
# Beside the executable: it cannot write one to be loaded, its root being read-only.
install -m 755 "$dist/native/nmi.node" "$root/bin/nmi.node"
install -m 755 "$dist/native/nmi-supervise" "$root/bin/nmi-supervise"
install -D -m 644 "$dist/THIRD-PARTY-NOTICES.txt" "$root/usr/share/doc/nmi/THIRD-PARTY-NOTICES.txt"
copy_libraries_of "$root/bin/nmi"
copy_libraries_of "$root/bin/nmi.node"
copy_libraries_of "$root/bin/nmi-supervise"

# Programs of several names tell by the name which they are, so each name is a link of its own.
for tool in "${tools[@]}"; do
  program=
  for folder in /usr/sbin /usr/bin /sbin /bin; do
    [[ ! -e $system$folder/$tool ]] || program=$(resolve "$folder/$tool")
  done
  [[ -n $program ]] || fail "$tool is not installed"
  copied+=("$program")
  [[ -e $root$program ]] || install -D -m 755 "$system$program" "$root$program"
  [[ $program == "/bin/$tool" ]] || ln -sr "$root$program" "$root/bin/$tool"
  copy_libraries_of "$system$program"
done

install -d "$root$modules"
cp -P "$system$modules"/lib{xt,ipt}_*.so "$root$modules"
for module in "$root$modules"/*.so; do copy_libraries_of "$module"; done

# Names of protocols and of routing tables, where the tools look for them; which Debian this is of.
for names in etc/protocols etc/ethertypes etc/iproute2 usr/share/iproute2 etc/os-release; do
  [[ -e $system/$names ]] || continue
  copied+=("/$names")
  (cd "$system/" && cp -RL --parents "$names" "$root")
done
copy_terms

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/bin/false
nonroot:x:65532:65532:nonroot:/:/bin/false
END
cat >"$root/etc/group" <<'END'
root:x:0:
nonroot:x:65532:
END
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
