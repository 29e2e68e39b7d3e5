import express from "express";
const PORT = Number.parseInt(process.env.PORT || "3000");
const app = express();
app.listen(PORT, () => console.log(`http://localhost:${PORT}`));
