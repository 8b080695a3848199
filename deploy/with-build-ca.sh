#!/bin/sh
# Runs a command of the image's build so that apt and npm trust the build secret `ca`, if one was given:
# a bundle of certificates, for networks whose proxy signs with its own. No layer keeps it.
set -e
if [ -s /run/secrets/ca ]; then
  echo 'Acquire::https::CAInfo "/run/secrets/ca";' >/tmp/build-ca.conf
  export APT_CONFIG=/tmp/build-ca.conf NODE_EXTRA_CA_CERTS=/run/secrets/ca
fi
exec "$@"
