//! `LogStore`: the reads by a filter.

use pyo3::prelude::*;

use crate::py::argument::{Arg, Flag, Text, arguments};
use crate::py::call::{read, read_rows};
use crate::py::convert::{Count, Integer};
use crate::py::entry::Row;
use crate::py::iter::LogIterator;
use crate::py::log::LogStore;
use crate::py::results::{List, New};
use crate::py::timestamp::Timestamp;
use crate::row::Filter;
use crate::store::Query;

/// A method of `LogStore` that takes the filters of a read: its signature, and the [`Filter`] that they make.
macro_rules! filtered {
    (
        $(#[$attribute:meta])*
        fn $name:ident($store:ident, $py:ident, $filter:ident, $archived:ident) -> $result:ty $body:block
    ) => {
        #[pymethods]
        impl LogStore {
            $(#[$attribute])*
            #[pyo3(
                signature = (*, source = None, r#type = None, ref_id = None, since = None, until = None,
                    after_id = None, before_id = None, limit = None, descending = Arg::OFF, archived = Arg::OFF),
                text_signature = "($self, *, source=None, type=None, ref_id=None, since=None, until=None, \
                    after_id=None, before_id=None, limit=None, descending=False, archived=False)"
            )]
            #[expect(clippy::too_many_arguments, reason = "the filters")]
            fn $name(
                &self,
                $py: Python<'_>,
                source: Option<Arg<Text>>,
                r#type: Option<Arg<Text>>,
                ref_id: Option<Arg<Text>>,
                since: Option<Arg<Timestamp>>,
                until: Option<Arg<Timestamp>>,
                after_id: Option<Arg<Integer>>,
                before_id: Option<Arg<Integer>>,
                limit: Option<Arg<Count>>,
                descending: Arg<Flag>,
                archived: Arg<Flag>,
            ) -> $result {
                arguments!(
                    source, r#type, ref_id, since, until, after_id, before_id, limit, descending, archived
                );
                let text = |text: Option<Text>| text.map(|text| text.to_string());
                let time = |bound: Option<Timestamp>| bound.map(|bound| bound.milliseconds);
                let integer = |integer: Option<Integer>| integer.map(|integer| integer.0);
                let $filter = Filter {
                    source: text(source),
                    kind: text(r#type),
                    ref_id: text(ref_id),
                    since: time(since),
                    until: time(until),
                    after_id: integer(after_id),
                    before_id: integer(before_id),
                    limit: limit.map(|limit| limit.0),
                    descending: descending.0,
                };
                let ($store, $archived) = (self, archived.0);
                $body
            }
        }
    };
}

filtered! {
    /// The rows that match every filter given, in id order.
    ///
    /// `since` and `until` bound the timestamp, both inclusive; `after_id` and `before_id` bound the id, both
    /// exclusive. `limit` takes the first rows of the order asked for. With `archived`, rows that have left the
    /// database are read from the archive as if they had not, each once; only files are opened that can hold a match.
    /// Without it, rows that an archive job takes away during a long query may be missing.
    fn query(this, py, filter, archived) -> PyResult<List<Row>> {
        let rows = read_rows(py, &this.store, Query::new(filter, archived))?;
        Ok(List(rows.into_iter().map(Row).collect()))
    }
}

filtered! {
    /// The rows of `query`, any number of them in constant memory, holding no transaction between steps.
    ///
    /// Rows appended after the call are not included. Rows that an archive job takes away meanwhile are skipped.
    fn iter(this, py, filter, archived) -> PyResult<New<LogIterator>> {
        let rows = read(py, &this.store, move |store| store.iter(filter.clone(), archived))?;
        Ok(New(LogIterator::over(&this.store, rows)))
    }
}

filtered! {
    /// How many rows `query` would return.
    fn count(this, py, filter, archived) -> PyResult<u64> {
        read(py, &this.store, move |store| store.count(&filter, archived))
    }
}
