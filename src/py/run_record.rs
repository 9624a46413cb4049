//! The records `WorkflowRun` and `RunClaim`, as they are given and as they are returned.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::base::time::check_timestamp;
use crate::py::argument::{Refusal, Text, named};
use crate::py::convert::{Integer, Record};
use crate::py::given::not_a_run;
use crate::py::timestamp::Timestamp;
use crate::workflow::{Fence, Run, RunClaim};

static WORKFLOW_RUN: Record = Record::new("WorkflowRun");
static RUN_CLAIM: Record = Record::new("RunClaim");

pub(super) fn create_run<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyAny>> {
    WORKFLOW_RUN.create(py, (&run.run_id, &run.workflow, run.status.name(), run.timestamp, run.exit_code))
}

/// The run, and when it took its state, as that was given.
pub(super) fn extract_run(run: &Bound<'_, PyAny>) -> PyResult<(Run, Timestamp)> {
    let py = run.py();
    if !run.is_instance(WORKFLOW_RUN.class(py)?)? {
        return Err(not_a_run(run));
    }
    let timestamp: Timestamp = named(&run.getattr("timestamp")?, "run.timestamp")?;
    let exit_code = run.getattr("exit_code")?;
    let run = Run {
        run_id: named::<Text>(&run.getattr("run_id")?, "run.run_id")?.to_string(),
        workflow: named::<Text>(&run.getattr("workflow")?, "run.workflow")?.to_string(),
        status: named(&run.getattr("status")?, "run.status")?,
        timestamp: check_timestamp(timestamp.milliseconds)?,
        exit_code: named::<Option<Integer>>(&exit_code, "run.exit_code")?.map(|code| code.0),
    };
    Ok((run, timestamp))
}

/// What a call carries of a `RunClaim`.
pub(super) struct Claim(pub(super) Fence);

impl<'a, 'py> FromPyObject<'a, 'py> for Claim {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if !object.is_instance(RUN_CLAIM.class(object.py())?)? {
            return Err(Refusal::not(&object, "a RunClaim"));
        }
        let run_id = object.getattr("run")?.getattr("run_id")?;
        let run_id = named::<Text>(&run_id, "claim.run.run_id")?.to_string();
        Ok(Self(Fence { run_id, token: named::<Integer>(&object.getattr("token")?, "claim.token")?.0 }))
    }
}

pub(super) fn create_claim<'py>(py: Python<'py>, claim: &RunClaim) -> PyResult<Bound<'py, PyAny>> {
    let run = create_run(py, &claim.run)?;
    RUN_CLAIM.create(py, (run, &claim.owner, claim.attempt, claim.token, claim.expires_at))
}

/// The fence of the claim that a call carries, if it carries one.
pub(super) fn fence(claim: Option<Claim>) -> Option<Fence> {
    claim.map(|claim| claim.0)
}

/// A claim of another run than that of a row is a `ValueError`; a row may be about none.
pub(super) fn check_ref(claim: &Fence, ref_id: Option<&str>) -> PyResult<()> {
    match ref_id {
        Some(ref_id) if ref_id != claim.run_id => {
            Err(PyValueError::new_err(format!("the claim is one of run {:?}, not of {ref_id:?}", claim.run_id)))
        }
        _ => Ok(()),
    }
}
