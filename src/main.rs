//! Entry point of `covibes`; everything is in `covibes::app`.

fn main() -> std::process::ExitCode {
    covibes::app::main()
}
