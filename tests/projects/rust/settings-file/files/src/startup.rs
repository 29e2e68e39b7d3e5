use actix_web::dev::Server;
pub async fn build(configuration: Settings) {
    let address = format!("{}:{}", configuration.application.host, configuration.application.port);
    let listener = TcpListener::bind(&address)?;
}
