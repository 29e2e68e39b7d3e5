(defproject x "0.1.0"
  :dependencies [[org.clojure/clojure "1.11.1"]
                 [ring/ring-core "1.11.0"]]
  :plugins [[lein-ring "0.12.6"]]
  :ring {:handler x.core/app})
