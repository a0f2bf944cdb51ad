"""The job script of docs/guides/scaling.md, with substitutes for the commands of a cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox import STEPS, Sandbox, rows, step_of

REPOSITORY = Path(__file__).parents[2]
SRUN = f"""#!/bin/sh
shift
exec {sys.executable} -m reslight "$@" $FAULT
"""
SCONTROL = """#!/bin/sh
echo "$@" >> requeued.txt
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_the_job_script_is_requeued_after_sigterm_and_resumes(tmp_path):
    sandbox = Sandbox(tmp_path)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (script,) = re.findall(r"```bash\n(#!.*?)```", (REPOSITORY / "docs/guides/scaling.md").read_text(), re.DOTALL)
    slurm = {"JOB_ID": "77", "JOB_NAME": "train", "NNODES": "1", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NODELIST": "localhost"}
    slurm |= {"PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    environment = sandbox.environment(CONFIG="tiny.yaml", PATH=f"{tmp_path}:{os.environ['PATH']}")
    environment |= {f"SLURM_{name}": value for name, value in slurm.items()}

    def job(fault: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment | {"FAULT": fault},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    fault = "--trainer.callbacks+=sandbox.Fault --trainer.callbacks.what=SIGTERM --trainer.callbacks.step=5"
    stopped = job(fault)
    run = tmp_path / "runs/77/tiny/1"
    assert stopped.returncode == 143, stopped.stderr
    assert (tmp_path / "requeued.txt").read_text() == "requeue 77\n"
    assert step_of(run) == 6
    again = job()
    assert again.returncode == 0, again.stderr
    assert step_of(run) == STEPS
    assert rows(run) == rows(sandbox.uninterrupted(()))
