"""The names of the tests must not depend on where and when they are collected."""

import os
import subprocess
import sys
import time

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_test_names_do_not_depend_on_time_locale_or_hashing():
    """pytest-xdist does not run if two workers collect tests with different names."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    changes = [{"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8"}]
    processes = []
    for change in changes:
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=os.environ | change, stdout=subprocess.PIPE, text=True)
        )
        time.sleep(1.1)  # gzip writes the time in seconds into its header
    first, second = (process.communicate()[0].splitlines() for process in processes)
    assert [p.returncode for p in processes] == [0, 0]
    assert first[:-1] == second[:-1] and len(first) > 4000  # the last line contains the time it took
