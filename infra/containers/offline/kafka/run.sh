#!/bin/sh
# The broker: KAFKA_NODE_ID=1 becomes node.id=1 as in the public image; `__` stands for `_`, `___` for `-`.
set -eu

config=/tmp/kafka.properties
env | grep '^KAFKA_' | grep -vE '^KAFKA_(HEAP_OPTS|OPTS|JVM_PERFORMANCE_OPTS|LOG4J[A-Z0-9_]*)=' |
    while IFS='=' read -r name value; do
        key=$(echo "${name#KAFKA_}" | sed 's/___/-/g; s/__/!/g; s/_/./g; s/!/_/g' | tr '[:upper:]' '[:lower:]')
        echo "$key=$value"
    done >"$config"

/opt/kafka/bin/java.sh kafka.tools.StorageTool format --ignore-formatted \
    --cluster-id "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" --config "$config"
exec /opt/kafka/bin/java.sh kafka.Kafka "$config"
