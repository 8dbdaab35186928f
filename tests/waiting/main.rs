//! Tests in which time itself passes, in one program: they wait side by side.

#![cfg(target_os = "linux")] // As the fault proxy is.

mod default_settings;
mod dial_back;
mod idle_stays_up;
mod never_worse;
