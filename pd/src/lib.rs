//! The placement driver.
