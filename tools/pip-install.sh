#!/bin/sh
# pip-install.sh ARGUMENT...: pip install in .venv; where that fails, the one line that says why is all it prints.
.venv/bin/python -m pip --disable-pip-version-check install --quiet "$@" >.venv/pip.log 2>&1 && exit 0
reason=$(grep '^ERROR' .venv/pip.log | grep -v -m 1 'ERROR: Ignored the following' || tail -n 1 .venv/pip.log)
# pip calls that, too, a version that it could not find.
! grep -q 'connection broken' .venv/pip.log || reason="the package index could not be reached"
# Of all the versions that there are, the list is long.
echo "$reason" | sed 's/^ERROR: //; s/ (from versions: .*//'
exit 1
