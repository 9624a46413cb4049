//! The records `WorkflowRun` and `RunClaim`, as they are given and as they are returned.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::base::error::quoted;
use crate::py::argument::{Refusal, Text, named};
use crate::py::convert::Integer;
use crate::py::given::at_index;
use crate::py::results::{Record, status_member};
use crate::py::timestamp::Timestamp;
use crate::row;
use crate::workflow::{Fence, Run, RunClaim};

static WORKFLOW_RUN: Record = Record::new("WorkflowRun");
static RUN_CLAIM: Record = Record::new("RunClaim");

pub(super) fn create_run<'py>(py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyAny>> {
    let status = status_member(py, run.status)?;
    WORKFLOW_RUN.create(py, (&run.run_id, &run.workflow, status, run.timestamp, run.exit_code))
}

/// The run that is the argument `name`, and when it took its state, as that was given.
pub(super) fn extract_run(run: &Bound<'_, PyAny>, name: &str) -> PyResult<(Run, Timestamp)> {
    check_is_run(run, name)?;
    let field = |field: &str| Ok::<_, PyErr>((run.getattr(field)?, format!("{name}.{field}")));
    let text = |of| field(of).and_then(|(value, name)| Ok(named::<Text>(&value, &name)?.to_string()));
    let (timestamp, timestamp_name) = field("timestamp")?;
    let timestamp: Timestamp = named(&timestamp, &timestamp_name)?;
    let (status, status_name) = field("status")?;
    let (exit_code, exit_code_name) = field("exit_code")?;
    let run = Run {
        run_id: text("run_id")?,
        workflow: text("workflow")?,
        status: named(&status, &status_name)?,
        timestamp: timestamp.checked(&timestamp_name)?,
        exit_code: named::<Option<Integer>>(&exit_code, &exit_code_name)?.map(|code| code.0),
    };
    Ok((run, timestamp))
}

fn check_is_run(run: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    match run.is_instance(WORKFLOW_RUN.class(run.py())?)? {
        true => Ok(()),
        false => Err(Refusal::not(run, "a WorkflowRun").about(name)),
    }
}

/// What a call carries of a `RunClaim`.
pub(super) struct Claim(pub(super) Fence);

impl<'a, 'py> FromPyObject<'a, 'py> for Claim {
    type Error = Refusal;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Refusal> {
        if !object.is_instance(RUN_CLAIM.class(object.py())?)? {
            return Err(Refusal::not(&object, "a RunClaim"));
        }
        let run = object.getattr("run")?;
        check_is_run(&run, "claim.run")?;
        let run_id = run.getattr("run_id")?;
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
        Some(ref_id) if ref_id != claim.run_id => Err(PyValueError::new_err(format!(
            "the claim is one of run {}, not of {}",
            quoted(&claim.run_id),
            quoted(ref_id)
        ))),
        _ => Ok(()),
    }
}

/// The same of all rows of a call; the error says which row it is.
pub(super) fn check_refs(py: Python<'_>, claim: Option<&Claim>, rows: &[row::NewLogEntry<'_>]) -> PyResult<()> {
    let Some(Claim(fence)) = claim else { return Ok(()) };
    let mut rows = rows.iter().enumerate();
    rows.try_for_each(|(index, row)| check_ref(fence, row.ref_id).map_err(|error| at_index(py, index, error)))
}
