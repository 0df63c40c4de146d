//! The `peristyle` command.

fn main() {
    std::process::exit(peristyle::cli::main());
}
