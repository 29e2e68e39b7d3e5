use axum::Router;
use std::net::SocketAddr;
fn main() {
    let addr = SocketAddr::from(([0, 0, 0, 0], 4000));
    serve(addr);
}
