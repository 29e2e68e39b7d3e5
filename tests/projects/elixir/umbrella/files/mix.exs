def project do
  [apps_path: "apps", deps: []]
end
