//! The structs of Arrow's C data and C stream interfaces, and who frees what.
//!
//! Whoever is given a struct frees what it holds by its `release`, and may move it elsewhere first: it then sets the
//! `release` of the place that it took it from to null. A parent owns the places of its children.
#![expect(unsafe_code, reason = "structs of C, whose pointers others follow")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// The type of a column, or of a row.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// The values of a column, or of rows.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

/// Batches of rows, one after the other.
#[repr(C)]
#[derive(Debug)]
pub struct ArrowArrayStream {
    pub(super) get_schema: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowSchema) -> c_int>,
    pub(super) get_next: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowArray) -> c_int>,
    pub(super) get_last_error: Option<unsafe extern "C" fn(*mut ArrowArrayStream) -> *const c_char>,
    pub(super) release: Option<unsafe extern "C" fn(*mut ArrowArrayStream)>,
    pub(super) private_data: *mut c_void,
}

/// The flag of a column that may hold nulls.
pub(super) const NULLABLE: i64 = 2;

impl ArrowSchema {
    /// A type of that format, whose name and format live for ever.
    pub(super) fn new(
        format: &'static CStr,
        name: &'static CStr,
        flags: i64,
        children: Vec<ArrowSchema>,
        dictionary: Option<ArrowSchema>,
    ) -> Self {
        let mut children = Box::new(places(children));
        Self {
            format: format.as_ptr(),
            name: name.as_ptr(),
            metadata: ptr::null(),
            flags,
            n_children: children.len() as i64,
            children: children.as_mut_ptr(),
            dictionary: dictionary.map_or(ptr::null_mut(), place),
            release: Some(release_schema),
            private_data: Box::into_raw(children).cast(),
        }
    }

    /// Frees what it holds, unless that was done or it was moved away.
    pub fn release(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the struct is whole, and this is its own function.
            unsafe { release(self) };
        }
    }
}

/// The memory that a column's values are in.
pub(super) enum Buffer {
    /// None, since no value is null.
    Missing,
    Bytes(Vec<u8>),
    Offsets(Vec<i32>),
    Integers(Vec<i64>),
}

impl Buffer {
    fn address(&self) -> *const c_void {
        match self {
            Self::Missing => ptr::null(),
            Self::Bytes(bytes) => bytes.as_ptr().cast(),
            Self::Offsets(offsets) => offsets.as_ptr().cast(),
            Self::Integers(integers) => integers.as_ptr().cast(),
        }
    }
}

/// What an array frees with itself.
struct Held {
    addresses: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
    _buffers: Vec<Buffer>,
}

impl ArrowArray {
    /// An array of so many values.
    pub(super) fn new(
        length: usize,
        null_count: usize,
        buffers: Vec<Buffer>,
        children: Vec<ArrowArray>,
        dictionary: Option<ArrowArray>,
    ) -> Self {
        let addresses: Vec<_> = buffers.iter().map(Buffer::address).collect();
        let mut held = Box::new(Held { addresses, children: places(children), _buffers: buffers });
        Self {
            length: length as i64,
            null_count: null_count as i64,
            offset: 0,
            n_buffers: held.addresses.len() as i64,
            n_children: held.children.len() as i64,
            buffers: held.addresses.as_mut_ptr(),
            children: held.children.as_mut_ptr(),
            dictionary: dictionary.map_or(ptr::null_mut(), place),
            release: Some(release_array),
            private_data: Box::into_raw(held).cast(),
        }
    }

    /// What stands for the end of a stream.
    pub(super) fn end() -> Self {
        Self {
            length: 0,
            null_count: 0,
            offset: 0,
            n_buffers: 0,
            n_children: 0,
            buffers: ptr::null_mut(),
            children: ptr::null_mut(),
            dictionary: ptr::null_mut(),
            release: None,
            private_data: ptr::null_mut(),
        }
    }

    /// Whether it is the end, or was moved away or released.
    pub fn is_end(&self) -> bool {
        self.release.is_none()
    }

    /// How many values it has.
    pub fn len(&self) -> i64 {
        self.length
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Frees what it holds, unless that was done or it was moved away.
    pub fn release(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the struct is whole, and this is its own function.
            unsafe { release(self) };
        }
    }
}

fn place<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

fn places<T>(values: Vec<T>) -> Vec<*mut T> {
    values.into_iter().map(place).collect()
}

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: the interface demands a struct that was not released; its parts are those that `new` made, and are freed
    // once, here.
    unsafe {
        let schema = &mut *schema;
        let children = Box::from_raw(schema.private_data.cast::<Vec<*mut ArrowSchema>>());
        for child in children.iter().copied().chain(Some(schema.dictionary).filter(|place| !place.is_null())) {
            Box::from_raw(child).release();
        }
        schema.release = None;
    }
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as for a schema.
    unsafe {
        let array = &mut *array;
        let held = Box::from_raw(array.private_data.cast::<Held>());
        for child in held.children.iter().copied().chain(Some(array.dictionary).filter(|place| !place.is_null())) {
            Box::from_raw(child).release();
        }
        array.release = None;
    }
}
