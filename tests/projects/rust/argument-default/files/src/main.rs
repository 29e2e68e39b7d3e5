use axum::Router;
use clap::Parser;
#[derive(Parser)]
struct Args {
    #[arg(short, long, default_value = "0.0.0.0")]
    host: String,
    #[arg(short, long, default_value_t = 8090)]
    port: u16,
}
#[tokio::main]
async fn main() {
    let args = Args::parse();
    let listener = tokio::net::TcpListener::bind((args.host, args.port)).await.unwrap();
}
