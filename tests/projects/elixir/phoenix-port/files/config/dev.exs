config :x, XWeb.Endpoint,
  http: [ip: {0, 0, 0, 0}, port: 4040]
