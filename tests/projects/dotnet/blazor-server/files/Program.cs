builder.Services.AddRazorComponents().AddInteractiveServerComponents();
