defmodule Example.Application do
  def start(_, _) do
    children = [{Plug.Cowboy, scheme: :http, plug: Example.Router, options: [port: cowboy_port()]}]
  end
  defp cowboy_port, do: Application.get_env(:example, :cowboy_port, 4001)
end
