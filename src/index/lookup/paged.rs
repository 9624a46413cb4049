//! The rows of a query, read a page at a time.

use std::vec::IntoIter;

use crate::base::error::Result;

/// Rows of the first page: the first candidate and the next one, which is looked at for whether the two are one span. A
/// read that stops there decodes no other.
const FIRST_PAGE: u32 = 2;
/// How many times as many rows the next page has: a long read costs few statements.
const GROWTH: u32 = 16;
/// Rows of the longest page.
const LONGEST_PAGE: u32 = 256;

/// What `fetch` returns, call by call: it is told how many rows to read, and returns fewer at the end. An error ends
/// the rows.
pub(super) struct Paged<T, F> {
    fetch: F,
    page: IntoIter<T>,
    /// Rows of the next page; None: there is none.
    next: Option<u32>,
}

impl<T, F: FnMut(u32) -> Result<Vec<T>>> Paged<T, F> {
    pub(super) fn new(fetch: F) -> Self {
        Self { fetch, page: Vec::new().into_iter(), next: Some(FIRST_PAGE) }
    }
}

impl<T, F: FnMut(u32) -> Result<Vec<T>>> Iterator for Paged<T, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if let Some(row) = self.page.next() {
            return Some(Ok(row));
        }
        let wanted = self.next.take()?;
        match (self.fetch)(wanted) {
            Ok(page) => {
                let is_full = page.len() >= wanted as usize;
                self.next = is_full.then(|| LONGEST_PAGE.min(wanted * GROWTH));
                self.page = page.into_iter();
                self.page.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

    #[test]
    fn every_row_comes_once_and_an_error_is_the_end() {
        for count in [0_u32, 1, 15, 16, 17, 271, 272, 273, 1_000] {
            let (mut next, mut calls) = (0, 0);
            let paged = Paged::new(|wanted| {
                calls += 1;
                let page: Vec<_> = (next..count.min(next + wanted)).collect();
                next += page.len() as u32;
                Ok(page)
            });
            assert_eq!(paged.map(Result::unwrap).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert!(calls <= 6, "{calls} statements for {count} rows");
        }
        let mut calls = 0;
        let failing = Paged::new(|wanted| {
            calls += 1;
            if calls == 1 { Ok(vec![0; wanted as usize]) } else { Err(Error::Cancelled) }
        });
        let found: Vec<_> = failing.take(100).collect();
        assert_eq!(found.len(), FIRST_PAGE as usize + 1);
        assert!(found.last().unwrap().is_err());
    }
}
