defp deps do
  []
end
