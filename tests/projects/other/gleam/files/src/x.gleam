pub fn main() {
  handler |> mist.new |> mist.port(8000) |> mist.start_http
}
