defmodule Shop.MixProject do
  use Mix.Project
  defp deps do
    [
      {:phoenix, "~> 1.7.10"},
      {:phoenix_ecto, "~> 4.4"},
      {:ecto_sql, "~> 3.10"},
      {:postgrex, ">= 0.0.0"},
      {:phoenix_live_view, "~> 0.20.1"},
      {:esbuild, "~> 0.8", runtime: Mix.env() == :dev},
      {:plug_cowboy, "~> 2.5"}
    ]
  end
end
