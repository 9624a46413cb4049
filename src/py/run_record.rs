//! The records `WorkflowRun` and `RunClaim`, as they are given and as they are returned.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::base::time::check_timestamp;
use crate::py::convert::{Integer, Record};
use crate::workflow::{Fence, Run, RunClaim};

static WORKFLOW_RUN: Record = Record::new("WorkflowRun");
static RUN_CLAIM: Record = Record::new("RunClaim");

pub(super) fn create_run<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyAny>> {
    WORKFLOW_RUN.create(py, (&run.run_id, &run.workflow, run.status.name(), run.timestamp, run.exit_code))
}

pub(super) fn extract_run(run: &Bound<'_, PyAny>) -> PyResult<Run> {
    let py = run.py();
    if !run.is_instance(WORKFLOW_RUN.class(py)?)? {
        let found = run.get_type().name()?.to_string();
        return Err(PyTypeError::new_err(format!("run is a WorkflowRun, not {found:?}")));
    }
    Ok(Run {
        run_id: field(run, "run_id")?,
        workflow: field(run, "workflow")?,
        status: field(run, "status")?,
        timestamp: check_timestamp(field::<Integer>(run, "timestamp")?.0)?,
        exit_code: field::<Option<Integer>>(run, "exit_code")?.map(|code| code.0),
    })
}

/// A field of a record; a wrong type is an error that says which field has it.
fn field<'py, T>(record: &Bound<'py, PyAny>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    record.getattr(name)?.extract::<T>().map_err(|error| {
        let py = record.py();
        if error.is_instance_of::<PyTypeError>(py) {
            PyTypeError::new_err(format!("run.{name}: {}", error.value(py)))
        } else {
            error
        }
    })
}

/// What a call carries of a `RunClaim`.
pub(super) struct Claim(pub(super) Fence);

impl<'a, 'py> FromPyObject<'a, 'py> for Claim {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if !object.is_instance(RUN_CLAIM.class(py)?)? {
            let found = object.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("claim is a RunClaim, not {found:?}")));
        }
        let run_id = object.getattr("run")?.getattr("run_id")?.extract::<PyBackedStr>()?.to_string();
        Ok(Self(Fence { run_id, token: object.getattr("token")?.extract::<Integer>()?.0 }))
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
