//! The binary: everything is in the library.

/// Cheaper than the C library's for what this does most: many small pieces that live for a call or a record.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chatlift::cli::main()
}
