# port 1234
port ENV.fetch("PORT", 3400)
