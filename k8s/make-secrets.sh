#!/bin/sh
# Random passwords, the first API key, the key of the webhooks' secrets and that of the dashboard's cookies, as an env file for kustomize's secretGenerator.
set -eu
umask 077
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
postgres=$(random) redis=$(random)
cat <<END
postgres-password=$postgres
redis-password=$redis
database-url=postgresql+psycopg://nanochat:$postgres@postgres:5432/nanochat
redis-url=redis://:$redis@redis:6379/0
admin.key=nc_$(random)
webhook.key=$(random)
session.key=$(random)
END
