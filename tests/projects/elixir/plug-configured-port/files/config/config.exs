import Config
config :example, cowboy_port: 4001
