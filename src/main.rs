//! The program; everything is in [`cardbridge::cli`].

fn main() -> std::process::ExitCode {
    cardbridge::cli::main()
}
