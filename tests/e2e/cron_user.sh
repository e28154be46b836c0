#!/bin/sh
# What a cron user does: a batch with keys, submitted twice; wait; collect the outputs; retry what failed.
# Needs: SCITQ (the command), SCITQ_SERVER, TOKEN_FILE, BATCH (JSON lines), RESULTS (a folder).
set -eu
scitq() { $SCITQ --token-file "$TOKEN_FILE" "$@"; }

ids=$(scitq task create --container bare --from-file "$BATCH")
again=$(scitq task create --container bare --from-file "$BATCH")
[ "$ids" = "$again" ] || { echo "the second submission made other tasks: $ids / $again" >&2; exit 1; }

status=0
echo "$ids" | scitq task wait --id - || status=$?
[ $status = 10 ] || { echo "one task must have failed; the wait said $status" >&2; exit 1; }

for id in $ids; do scitq task output --id "$id" >"$RESULTS/$id.log"; done

touch "$RESULTS/repaired"
for id in $(echo "$ids" | scitq task list --quiet --status F --id - --limit 0); do
    scitq task retry --id "$id" --retry 1 >>"$RESULTS/retried"
done
scitq task wait --id - <"$RESULTS/retried"
scitq task list --status F --quiet --label batch=nightly
