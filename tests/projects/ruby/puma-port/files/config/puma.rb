workers 2
port ENV['PORT'] || 5000
