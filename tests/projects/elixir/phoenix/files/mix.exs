defmodule X.MixProject do
  use Mix.Project
  def project do
    [app: :x, elixir: "~> 1.14", deps: deps()]
  end
  defp deps do
    [
      {:phoenix, "~> 1.7.10"},
      {:bandit, "~> 1.2"}
    ]
  end
end
