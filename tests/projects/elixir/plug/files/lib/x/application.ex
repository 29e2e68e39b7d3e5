children = [
  {Plug.Cowboy, scheme: :http, plug: X.Router, options: [port: 4001]}
]
