use axum::Router;
async fn main() { let port = env::var("PORT").unwrap(); let l = TcpListener::bind(format!("0.0.0.0:{port}")).await.unwrap(); }
