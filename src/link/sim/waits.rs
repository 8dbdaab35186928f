//! How long lanes have waited for their turn.

#[derive(Default)]
pub(super) struct Waits {
    /// Batches in a row in which an urgent lane was passed over.
    pub(super) passed_over: u32,
    /// Urgent chunks in a row while a weighted lane waited.
    pub(super) urgent_run: u32,
}
