run API
