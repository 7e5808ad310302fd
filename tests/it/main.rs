//! What chatlift promises, tested from outside.

mod crash;
