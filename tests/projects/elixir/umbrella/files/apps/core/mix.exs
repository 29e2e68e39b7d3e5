defp deps do [] end
