//! Lines of the log. All have one target, whatever module they come from: it is what an operator filters by.

pub(crate) const TARGET: &str = "unbroken";

/// Writes a line to the log, at a level of [`log::Level`]. Clippy refuses the macros of the `log` crate,
/// which take the path of the module for the target.
macro_rules! log_line {
    ($level:ident, $($line:tt)+) => {
        log::log!(target: $crate::log_line::TARGET, log::Level::$level, $($line)+)
    };
}
