#!/usr/bin/env bash
# Build the Docker image and the Apptainer image and run both as labs do: read-only, as another user, without a network.
#
#   tests/acceptance/container/run.sh [docker] [apptainer]      both, if none is named
#
# TOOLS: folder with image.sh and sif.sh, which build and run without a Docker engine.
set -euo pipefail
cd "$(dirname "$0")/../../.."
TOOLS=${TOOLS:-../shared/tools}
TAG=neurostorm-test
LARGEST=1600 # MB
export PIP_CONSTRAINT= # a constraints file of this machine's pip is not there inside a build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n_passed=0 n_failed=0

# expect STATUS WHAT COMMAND...: the command ends with this status; what it says is in $work/said
expect() {
    local wanted=$1 what=$2 status=0
    shift 2
    "$@" >"$work/said" 2>&1 || status=$?
    check "$what (status $wanted)" test "$status" = "$wanted" || sed 's/^/    /' "$work/said"
}

# check WHAT COMMAND...
check() {
    local what=$1
    shift
    if "$@"; then
        n_passed=$((n_passed + 1)) && echo "ok      $what"
    else
        n_failed=$((n_failed + 1)) && echo "FAILED  $what" && return 1
    fi
}

says() { check "  and says: $1" grep -q -- "$1" "$work/said" || sed 's/^/    /' "$work/said"; }

new_out() { rm -rf "$work/out" && mkdir -m 777 "$work/out"; }

make_data() {
    make setup >/dev/null
    .venv/bin/neurostorm-demo --only-data "$work/demo" >/dev/null
    data=$work/demo/fmriprep
    chmod -R a+rX "$work"
}

docker() { bash "$TOOLS/image.sh" run "$TAG" -v "$data:/data:ro" -v "$work/out:/out" "$@"; }
apptainer() {
    bash "$TOOLS/sif.sh" run "$work/neurostorm.sif" --bind "$data:/data:ro" --bind "$work/out:/out" \
        --cleanenv --containall --writable-tmpfs -- "$@"
}

# what both images have to do; $1: how to run one
common() {
    new_out
    expect 0 "--version" "$1" "${@:2}" --version
    expect 2 "a wrong option" "$1" "${@:2}" /data /out participant --no-such-option
    expect 1 "weights that are not there" "$1" "${@:2}" /data /out participant
    says "neurostorm-model fetch base"
    says "NEUROSTORM_HOME is now /opt/neurostorm"
    expect 0 "one subject" "$1" "${@:2}" /data /out participant --model demo --participant-label 01
    says "sub-01_task-rest .* done"
    check "  without a complaint" test "$(grep -c -i 'warning\|traceback' "$work/said")" = 0
    check "  results are there" test -s "$work/out/sub-01.html"
    expect 0 "the same again" "$1" "${@:2}" /data /out participant --model demo --participant-label 01
    says "finished earlier, skipped"
    expect 1 "a subject that is not there" "$1" "${@:2}" /data /out participant --model demo --participant-label 99
}

with_docker() {
    check "the Docker image builds" bash "$TOOLS/image.sh" build . "$TAG" >"$work/build" 2>&1 || { tail -50 "$work/build"; return; }
    tail -n 1 "$work/build"
    size=$(sed -n 's/.*built .* (\([0-9]*\) MB).*/\1/p' "$work/build")
    check "it has at most $LARGEST MB" test "$size" -le "$LARGEST"
    bill_of_materials
    check "what is not in it was said" grep -q "WARNING: the templates are NOT in this image" "$work/build"
    common docker --user 1000:1000 --
    check "results belong to the user" test "$(stat -c %u "$work/out/sub-01.html")" = 1000
    new_out
    expect 0 "HOME that does not exist" docker --user 4321:4321 -e HOME=/nowhere -- \
        /data /out participant --model demo --participant-label 01
    check "  without a complaint" test "$(grep -c -i 'warning\|traceback' "$work/said")" = 0
    new_out && chmod 755 "$work/out"
    expect 1 "an output folder of another user" docker --user 1000:1000 -- /data /out participant --model demo
    says "cannot be written to"
    new_out
    stopped docker --user 1000:1000 --
}

# what is in the image, by its own list, as CycloneDX; stays in dist/
bill_of_materials() {
    make .venv/release-ready >/dev/null && mkdir -p dist
    bash "$TOOLS/image.sh" run "$TAG" --entrypoint cat -- /opt/venv/packages.txt >"$work/packages.txt"
    expect 0 "a bill of materials of the image" .venv/bin/cyclonedx-py requirements --output-file dist/sbom-image.cdx.json "$work/packages.txt"
    check "  torch is in it" grep -q '"name": "torch"' dist/sbom-image.cdx.json
    check "  pip, which was deleted, is not" test -z "$(grep '"name": "pip"' dist/sbom-image.cdx.json)"
}

with_apptainer() {
    check "the Apptainer image builds and passes its test" bash "$TOOLS/sif.sh" build Singularity.def \
        "$work/neurostorm.sif" --mksquashfs-args '-comp zstd -Xcompression-level 1' >"$work/build" 2>&1 ||
        { tail -50 "$work/build"; return; }
    tail -n 1 "$work/build"
    common apptainer
    new_out
    stopped apptainer
}

# a scheduler's SIGTERM: what is finished stays, status 143
stopped() {
    local status=0 child call="/data /out participant --model demo --window-stride 1 --random-seed $$"
    # shellcheck disable=SC2086
    ("$@" $call >"$work/said" 2>&1) &
    for _ in $(seq 600); do
        grep -q "encoding" "$work/said" 2>/dev/null && break
        sleep 0.1
    done
    child=$(pgrep -f "neurostorm $call" | tail -n 1)
    kill -TERM "$child"
    wait $! || status=$?
    check "SIGTERM (status 143)" test "$status" = 143 || sed 's/^/    /' "$work/said"
    says "stopped by SIGTERM"
    check "  nothing half-written" test -z "$(find "$work/out" -name '*.partial')"
}

make_data
for which in "${@:-docker apptainer}"; do
    for one in $which; do "with_$one"; done
done
echo "$n_passed passed, $n_failed failed"
test "$n_failed" = 0
