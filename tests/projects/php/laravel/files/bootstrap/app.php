return Application::configure()->withRouting(health: '/up')->create();
