#!/usr/bin/env bash
# Fills an empty folder with all that the image holds, from a Debian system that has it installed:
#
#   deploy/image-root.sh FOLDER DIST
#
# DIST is what the build made: the executable, its addon, the licences of what is in them. With them
# come the tools that the agent runs, the libraries they load, and nothing else: no shell, no package
# manager. What is not installed fails here, not on a node.
set -euo pipefail

(($# == 2)) || {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
root=$(readlink -f "$1")
readonly root dist=$2

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

copy_libraries_of() {
  local line
  while read -r line; do
    case $line in
      *'not found'*) fail "$1 lacks a library: $line" ;;
      *'=> /'*) copy_library "$(awk '{ print $3 }' <<<"$line")" ;;
      /*) copy_library "${line%% *}" ;;
    esac
  done < <(ldd "$1")
}

# Where the loader looks, whether or not /lib is a link to /usr/lib.
copy_library() {
  copied+=("$1")
  [[ -e $root$1 ]] || install -D -m 755 "$1" "$root$1"
}

# What of the system is in the image.
copied=()

# The copyright files of the packages that those files are of, and the licences these refer to.
copy_terms() {
  local paths=() path package
  for path in "${copied[@]}"; do
    # The package has it in /lib or in /usr/lib, whatever the loader says.
    paths+=("$path" "$(readlink -f "$path")" "/usr$path" "${path#/usr}")
  done
  # Lines are `package:arch, package: path`, or tell of a diversion.
  while read -r package; do
    install -D -m 644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
  done < <(dpkg-query -S "${paths[@]}" 2>/dev/null |
    sed '/^diversion by /d; s/: .*//; s/, /\n/g' | sed 's/:.*//' | sort -u)
  install -d "$root/usr/share/common-licenses"
  cp -P /usr/share/common-licenses/* "$root/usr/share/common-licenses"
}

mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp}
chmod 1777 "$root/tmp"
install -m 755 "$dist/nmi" "$root/bin/nmi"
# Beside the executable: it cannot write one to be loaded, its root being read-only.
install -m 755 "$dist/native/nmi.node" "$root/bin/nmi.node"
install -D -m 644 "$dist/THIRD-PARTY-NOTICES.txt" "$root/usr/share/doc/nmi/THIRD-PARTY-NOTICES.txt"
copy_libraries_of "$root/bin/nmi"
copy_libraries_of "$root/bin/nmi.node"

# Programs of several names tell by the name which they are, so each name is a link of its own.
for tool in "${tools[@]}"; do
  path=$(command -v "$tool") || fail "$tool is not installed"
  program=$(readlink -f "$path")
  copied+=("$program")
  [[ -e $root$program ]] || install -D -m 755 "$program" "$root$program"
  [[ $program == "/bin/$tool" ]] || ln -s "$program" "$root/bin/$tool"
  copy_libraries_of "$program"
done

# iptables loads a module for every match and target that a rule names, also in rules of others.
modules=$(dirname "$(find /usr/lib -name libxt_tcp.so -print -quit)")
[[ $modules != . ]] || fail 'the modules of iptables are not where they are looked for'
install -d "$root$modules"
cp -P "$modules"/lib{xt,ipt}_*.so "$root$modules"
for module in "$root$modules"/*.so; do copy_libraries_of "$module"; done
copy_terms

# Names of protocols and of routing tables, where the tools look for them.
for names in /etc/protocols /etc/ethertypes /etc/iproute2 /usr/share/iproute2; do
  [[ ! -e $names ]] || cp -a --parents "$names" "$root"
done

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/:/bin/false
nonroot:x:65532:65532:nonroot:/:/bin/false
END
cat >"$root/etc/group" <<'END'
root:x:0:
nonroot:x:65532:
END
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
