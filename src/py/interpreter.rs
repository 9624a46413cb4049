//! Entering Python code from Rust, so that a daemon thread may meet the interpreter's end there.
//!
//! Before 3.14, CPython ends a thread that asks for the interpreter once finalization has begun: `pthread_exit` unwinds
//! the thread's stack. Python code asks for the interpreter between any two of its instructions. If Rust called that
//! code, the unwinding meets Rust's frames, which abort the process, or run destructors that need the interpreter.
//! Therefore every call that may run Python code goes through this module, where the unwinding ends: the thread sleeps
//! until the process has ended, as 3.14 has it. pyo3 does the same where it attaches and reattaches.
//!
//! An exception that comes too late for its call is raised after it.
#![expect(unsafe_code, reason = "functions of Python that pyo3 declares in another way, or not at all")]

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::hint::black_box;
use std::sync::OnceLock;
use std::{mem, ptr, thread};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyString, PyTuple};

type Object = *mut ffi::PyObject;

/// Functions of Python that return a new reference, or null with an exception set, and that may unwind.
type Unary = unsafe extern "C-unwind" fn(Object) -> Object;
type Binary = unsafe extern "C-unwind" fn(Object, Object) -> Object;
type Ternary = unsafe extern "C-unwind" fn(Object, Object, Object) -> Object;

/// A function by its address, as one that may unwind.
///
/// pyo3 declares it as one that never does, and the compiler, which keeps one declaration a symbol, would take away
/// what is to be done when it unwinds. It therefore must not see which function it is.
///
/// # Safety
///
/// `F` is the function's type but for the unwinding.
unsafe fn unwinding<F: Copy>(address: *const ()) -> F {
    let address = black_box(address);
    // SAFETY: a function pointer has the size of an address; the caller answers for the type.
    unsafe { mem::transmute_copy::<*const (), F>(&address) }
}

/// Dropped only by unwinding, in the frame that called Python.
struct Sleep;

impl Drop for Sleep {
    fn drop(&mut self) {
        loop {
            thread::park();
        }
    }
}

/// Runs `enter`, which calls into Python.
#[inline(never)]
fn entered(enter: impl FnOnce() -> Object) -> Object {
    let sleep = Sleep;
    let object = enter();
    mem::forget(sleep);
    object
}

/// Takes what a call into Python returned: a new reference, or null with an exception set.
fn taken(py: Python<'_>, object: Object) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached, and every function that is entered returns one of the two.
    unsafe { Bound::from_owned_ptr_or_err(py, object) }
}

/// Arguments by position: any tuple.
pub(super) trait Arguments<'py> {
    fn into_tuple(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>>;
}

impl<'py, T> Arguments<'py> for T
where
    T: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>>,
    PyErr: From<T::Error>,
{
    fn into_tuple(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        Ok(self.into_pyobject(py)?)
    }
}

/// Calls `callable`.
pub(super) fn call<'py>(callable: &Bound<'py, PyAny>, arguments: impl Arguments<'py>) -> PyResult<Bound<'py, PyAny>> {
    call_with(callable, arguments, None)
}

/// Calls `callable` with keywords as well.
pub(super) fn call_with<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: impl Arguments<'py>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let arguments = arguments.into_tuple(py)?;
    let keywords = keywords.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: it takes three objects.
    let function: Ternary = unsafe { unwinding(ffi::PyObject_Call as *const ()) };
    // SAFETY: the thread is attached, and all pointers are borrowed for the call; no keywords are null.
    let result = entered(|| unsafe { function(callable.as_ptr(), arguments.as_ptr(), keywords) });
    taken(py, result)
}

/// Calls the method `name` of `object`.
pub(super) fn call_method<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: impl Arguments<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    call(&attribute(object, name)?, arguments)
}

/// The attribute `name` of `object`, which may be computed by Python code.
pub(super) fn attribute<'py>(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: it takes two objects.
    let function: Binary = unsafe { unwinding(ffi::PyObject_GetAttr as *const ()) };
    // SAFETY: the thread is attached, and both pointers are borrowed for the call.
    let value = entered(|| unsafe { function(object.as_ptr(), name.as_ptr()) });
    taken(object.py(), value)
}

/// The attribute `name` of the module `module`.
pub(super) fn imported<'py>(py: Python<'py>, module: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = PyString::new(py, module);
    // SAFETY: it takes one object.
    let function: Unary = unsafe { unwinding(ffi::PyImport_Import as *const ()) };
    // SAFETY: the thread is attached, and the pointer is borrowed for the call.
    let module = entered(|| unsafe { function(module.as_ptr()) });
    attribute(&taken(py, module)?, &PyString::new(py, name))
}

/// The same, imported once: an import may begin a collection of cycles.
pub(super) fn imported_once<'py>(
    py: Python<'py>,
    kept: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    kept.get_or_try_init(py, || imported(py, module, name).map(Bound::unbind)).map(|found| found.bind(py))
}

/// The path that `object` is or, as `os.PathLike`, tells.
pub(super) fn file_path<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: it takes one object.
    let function: Unary = unsafe { unwinding(ffi::PyOS_FSPath as *const ()) };
    // SAFETY: the thread is attached, and the pointer is borrowed for the call.
    let path = entered(|| unsafe { function(object.as_ptr()) });
    taken(object.py(), path)
}

/// It has no items.
pub(super) struct NoItems;

/// The items of `iterable`, if it has any. An error is what its own `__iter__` raises.
pub(super) fn items<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<Result<Items<'py>, NoItems>> {
    // SAFETY: it takes one object.
    let function: Unary = unsafe { unwinding(ffi::PyObject_GetIter as *const ()) };
    // SAFETY: the thread is attached, and the pointer is borrowed for the call.
    let iterator = entered(|| unsafe { function(iterable.as_ptr()) });
    match taken(iterable.py(), iterator) {
        Ok(iterator) => Ok(Ok(Items(iterator.cast_into::<PyIterator>()?))),
        // The interpreter's own refusal comes from no line of Python.
        Err(error)
            if error.is_instance_of::<PyTypeError>(iterable.py()) && error.traceback(iterable.py()).is_none() =>
        {
            Ok(Err(NoItems))
        }
        Err(error) => Err(error),
    }
}

/// An iterator over the items of a Python object.
pub(super) struct Items<'py>(Bound<'py, PyIterator>);

impl<'py> Items<'py> {
    /// The iterator itself.
    pub(super) fn into_any(self) -> Bound<'py, PyAny> {
        self.0.into_any()
    }
}

impl<'py> Iterator for Items<'py> {
    type Item = PyResult<Bound<'py, PyAny>>;

    fn next(&mut self) -> Option<Self::Item> {
        let py = self.0.py();
        // SAFETY: it takes one object.
        let function: Unary = unsafe { unwinding(ffi::PyIter_Next as *const ()) };
        // SAFETY: the thread is attached, and the pointer is that of an iterator, borrowed for the call.
        let item = entered(|| unsafe { function(self.0.as_ptr()) });
        if item.is_null() {
            // Null without an exception is the end.
            return PyErr::take(py).map(Err);
        }
        Some(taken(py, item))
    }
}

/// Looks at signals: an error if a handler raises.
///
/// Since 3.12 `PyErr_CheckSignals`, which pyo3 calls, begins with a collection of cycles that is due. If that calls
/// Python code (of `gc.callbacks`, a finalizer), handlers run there, and what they raise is printed and lost. This one
/// begins with the signals, as the interpreter does between two instructions.
pub(super) fn check_signals(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached.
    let outcome = unsafe { ffi::Py_MakePendingCalls() };
    if outcome == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}

/// Runs `make`, which makes Python objects and runs no Python code, while no collection of cycles begins.
///
/// Before 3.12 a collection begins in the allocation of an object, and may call Python code: handlers of signals that
/// came meanwhile would run there, and what they raise would be lost. Later versions collect between two instructions
/// of Python code, so that nothing is to be done; a setting of the whole process would not be this thread's to change
/// where others run beside it. See also [`check_signals`].
pub(super) fn uncollected<T>(_py: Python<'_>, make: impl FnOnce() -> T) -> T {
    struct Enable(bool);
    impl Drop for Enable {
        fn drop(&mut self) {
            if self.0 {
                // SAFETY: the thread is attached for longer than this lives.
                unsafe { ffi::PyGC_Enable() };
            }
        }
    }
    // SAFETY: a constant of the interpreter.
    let _enable = Enable(
        unsafe { ffi::Py_Version } < PYTHON_3_12 && {
            // SAFETY: the thread is attached, and stays so: others neither see the setting nor change it.
            unsafe { ffi::PyGC_Disable() != 0 }
        },
    );
    make()
}

/// As `PY_VERSION_HEX` tells versions.
const PYTHON_3_12: c_ulong = 0x030c_0000;

/// Attaches a thread in the middle of long work. None once the interpreter is ending: nothing is to be told to it any
/// more, and the work is to stop.
pub(super) fn attach<T>(act: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    if is_finalizing() && !is_main_thread() { None } else { Python::try_attach(act) }
}

/// Whether finalization has begun. pyo3 asks only if it is built for one version from 3.13 on.
fn is_finalizing() -> bool {
    type IsFinalizing = unsafe extern "C" fn() -> c_int;
    static FUNCTION: OnceLock<Option<IsFinalizing>> = OnceLock::new();
    let function = FUNCTION.get_or_init(|| {
        // The second is the name before 3.13.
        let symbol = |name: &CStr| {
            // SAFETY: the name ends with a null byte.
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
        };
        let names = [c"Py_IsFinalizing", c"_Py_IsFinalizing"];
        let address = names.into_iter().map(symbol).find(|address| !address.is_null())?;
        // SAFETY: both functions have this type.
        Some(unsafe { mem::transmute::<*mut libc::c_void, IsFinalizing>(address) })
    });
    // SAFETY: it may be called by any thread at any time: it reads a flag.
    function.is_some_and(|function| unsafe { function() } != 0)
}

/// Whether this is the process's first thread, which is the one that ends the interpreter and runs its signal
/// handlers. Where Python was started in another thread, signals wait for the end of a call.
pub(super) fn is_main_thread() -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: neither call takes memory.
    return unsafe { libc::gettid() == libc::getpid() };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the call takes no memory.
    return unsafe { libc::pthread_main_np() } != 0;
}

/// Raises an exception in the main thread after the call that it came too late for has returned.
pub(super) fn raise_later(py: Python<'_>, raised: PyErr) {
    extern "C" fn raise(exception: *mut c_void) -> c_int {
        // SAFETY: Python calls this attached, once, with the exception that was given away below.
        unsafe {
            let py = Python::assume_attached();
            let exception = Bound::from_owned_ptr(py, exception.cast());
            PyErr::from_value(exception).restore(py);
        }
        -1
    }
    let exception = raised.into_value(py).into_ptr();
    // SAFETY: the function takes the exception over; it lives for ever.
    if unsafe { ffi::Py_AddPendingCall(Some(raise), exception.cast()) } != 0 {
        // SAFETY: the exception was not taken over.
        drop(unsafe { Bound::from_owned_ptr(py, exception) });
    }
}
