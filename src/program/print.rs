//! Prints plans.
