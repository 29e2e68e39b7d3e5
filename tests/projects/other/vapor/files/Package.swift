let package = Package(
  name: "x",
  dependencies: [.package(url: "https://github.invalid/vapor/vapor.git", from: "4.99.0")],
  targets: [.executableTarget(name: "App", dependencies: [])]
)
