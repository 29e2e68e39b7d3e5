(defproject x "0.1.0"
  :dependencies [[luminus-transit "0.1.6"]
                 [luminus-undertow "0.1.18"]
                 [ring/ring-core "1.11.0"]]
  :main ^:skip-aot x.core)
